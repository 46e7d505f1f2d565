"""Settings that all tests share."""

from hypothesis import settings

# A slow or busy machine is no fault of the code under test.
settings.register_profile("litrev", deadline=None)
settings.load_profile("litrev")
