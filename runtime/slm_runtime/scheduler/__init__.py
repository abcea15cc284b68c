"""What runs in the next step: admission, batching, shared prefixes, cancellation, deadlines.

The scheduler plans and keeps account; it calls no engine, chooses no token and reads no clock. `scheduler`
is the state machine, `cells` the account of key/value cells, `prefixes` what is resident and can be shared,
`waiting` the fair queue.
"""
