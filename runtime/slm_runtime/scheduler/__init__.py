"""What runs in the next step: admission, batching, shared prefixes, cancellation.

The scheduler plans and keeps account; it calls no engine, chooses no token and reads no clock. `scheduler`
is the state machine, `cells` the account of key/value cells, `residents` what is held and can be shared,
`waiting` the fair queue.
"""
