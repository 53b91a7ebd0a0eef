"""To the human and to machines: text, tables, JSON. The only room with a colour; decides nothing."""
