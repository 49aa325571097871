"""``python -m benchmarks.scale``; the processes it starts import the rest by name."""

from benchmarks.scale._scale import main

if __name__ == "__main__":
    main()
