"""The configuration: parsed and checked, one module a section."""
