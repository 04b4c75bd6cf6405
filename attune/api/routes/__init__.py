"""The routes, one module a noun. Each class is given what it needs and says which endpoints it has."""
