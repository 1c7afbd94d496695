"""Goals with known answers: how many of them an agent reaches, with which model."""
