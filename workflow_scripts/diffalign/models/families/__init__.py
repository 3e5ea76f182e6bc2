"""Families of models: one module each, whose object ``FAMILY`` declares it (`diffalign.models.registry`)."""
