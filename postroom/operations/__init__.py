"""Operations: what an operator does, for the command line and the page alike."""
