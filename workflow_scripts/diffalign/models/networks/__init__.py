"""Networks of models that no library has, under the names of their published state dicts."""
