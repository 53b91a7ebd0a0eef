"""The daemon that ingests a source all day: its loop, its pause, its warnings. It knows records of no product."""
