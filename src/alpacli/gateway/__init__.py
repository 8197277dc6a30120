"""One account for many programs: ``alpacli serve`` over HTTP and WebSocket. Imported by that command alone."""
