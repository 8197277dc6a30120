"""The offline paper exchange: a market made of arithmetic, a ledger in SQLite, and Alpaca's wire in front of both."""
