"""Results: their parts (`model`), tables and sentences that recur (`scores`), and a module for each medium."""
