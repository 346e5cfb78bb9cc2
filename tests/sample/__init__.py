"""A sample CHAP with the real one's interface and vices, on a real engine, for tests and the demo."""
