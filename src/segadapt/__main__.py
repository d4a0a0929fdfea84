"""`python -m segadapt`, which is also how torchrun starts it."""

from segadapt.cli.main import main

if __name__ == "__main__":
    main()
