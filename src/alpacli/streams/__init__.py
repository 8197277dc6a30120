"""Live data: one supervised connection, and the hub through which all processes of a user share it."""
