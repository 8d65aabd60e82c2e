"""Operations on the task vector that another method has merged."""
