"""Numbers of ports, as people write them."""


def port(text: str) -> int:
    """Read a port number; ValueError says what is wrong."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port")
    return int(text)
