"""Whether a server answers: `python healthy.py URL`, exit status 0 if with 200. Knows nothing of what it serves."""

import sys
import urllib.request


def main() -> None:
    """Ask once, for at most three seconds."""
    # Never through a proxy: what is asked is in the same container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(sys.argv[1], timeout=3) as answer:
            healthy = answer.status == 200
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
