//! A cluster of one SC and one SPU on loopback, for tests.
