"""The command line: parse, one client call, render. ``entry`` is the way in, ``app`` the whole program."""
