"""`spec.model.decryption`: with what an encrypted model is decrypted."""

from slm_operator.crd.base import ApiModel, EntryReference


class Decryption(ApiModel):
    secret_ref: EntryReference
    """Secret with an age identity, as `age-keygen` writes it: files that end in `.age` are decrypted with it."""
