"""The database: embedded or elsewhere, its schema, its connections, and the writer that everybody shares."""
