"""What is kept on this machine of an account and its market, and the numbers drawn from it."""
