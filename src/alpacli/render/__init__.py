"""Values become what people and programs read: tables, charts, JSON, CSV. Pure functions; no I/O, no client, no clock."""
