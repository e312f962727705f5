"""`python -m medorchestra`."""

from medorchestra.cli import main

if __name__ == "__main__":
    main()
