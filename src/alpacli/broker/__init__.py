"""One request, from the cache to the wire and back: the same rules for the sync and the async client."""
