"""A method whose parameters differ from tensor to tensor."""
