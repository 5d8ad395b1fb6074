"""For tests of devices, indexes and parsers, ours and a third party's."""
