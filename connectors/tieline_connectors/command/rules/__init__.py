"""What happens to a command, and why: all decisions of the command sink, and nothing else; pure.

No function here waits, reads a clock or talks to a device. Each gets what is known and returns what is to be
done; `execution` does it. A command's life is `arrival`, `start`, `outcome`:

    decide_arrival ► decide_start ► check_before_write ► the write ► decide_outcome
    after a crash in STARTED: decide_after_crash

The end of a hold is decided in `holds`.

| code | state | what it means |
|---|---|---|
| `CLOCK_UNTRUSTED` | not set: it waits | the worker's clock was set, or is behind what has already happened |
| `WRONG_PLACE` | REJECTED | on another partition than its devices', or for another topic or platform |
| `MALFORMED` | REJECTED | not a command: the sentence names the field that is wrong |
| `CONFLICT` | REJECTED | another command with the same id came before |
| `EXPIRED` | EXPIRED | it arrived, or its turn came, at its expiry or later |
| `TOO_SLOW` | EXPIRED | the worker was suspended between its claim and the write, and did not write |
| `MAX_AGE` | EXPIRED | older than `max.age`, by its issue time or by its record's timestamp |
| `CLOCK_SKEW` | REJECTED | issued in the future, by more than `max.clock.skew` |
| `NEVER_DUE` | REJECTED | `not_before` is at or after the moment when it expires |
| `FORGOTTEN` | REJECTED | the ledger has forgotten commands of its issue time, and it may be one of them |
| `KILL_SWITCH` | REJECTED | the kill switch is engaged |
| `SIGNATURE` | REJECTED | the signature that its rule requires is missing or wrong |
| `NOT_ALLOWED` | REJECTED | no rule of the policy allows it |
| `POLICY_DENIED` | REJECTED | a rule of the policy denies it |
| `POLICY_PRIORITY` | REJECTED | a higher priority than the issuer may use |
| `POLICY_REASON` | REJECTED | a reason is required |
| `POLICY_HOLD` | REJECTED | a hold is required, or a shorter one |
| `POLICY_TYPE` | REJECTED | not the type of value that the point takes |
| `POLICY_VALUES` | REJECTED | not one of the allowed values |
| `POLICY_MIN` | REJECTED | below the allowed minimum |
| `POLICY_MAX` | REJECTED | above the allowed maximum |
| `POLICY_STEP` | REJECTED | between two steps |
| `POLICY_TOLERANCE` | REJECTED | a wider tolerance for reading back than its rule allows |
| `POLICY_DWELL` | REJECTED | too soon after the last write of the point |
| `POLICY_MAX_CHANGE` | REJECTED | too far from recent values of the point, or the point cannot be read |
| `CIRCUIT_OPEN` | REJECTED | the device's last commands have failed; it gets no commands for a while |
| `RATE_LIMIT` | REJECTED | too many commands in too short a time |
| `TOO_MANY_WAIT` | REJECTED | `max.waiting` commands wait already, or half of it from this issuer alone |
| `DRY_RUN` | SUCCEEDED | everything was checked, nothing was written |
| `NOT_COMPARED` | SUCCEEDED | reverted as requested; there is no value to compare with |
| `PROVED_BY_READ_BACK` | SUCCEEDED | no answer came, or the worker died; the device holds the value |
| `MAYBE_LATE` | SUCCEEDED | the device holds the value; the proof came late, so the write may be late too |
| `READ_BACK_DIFFERS` | MISMATCH | written, and the device holds another value |
| `DEVICE_REFUSED` | FAILED | the device refused; the points written before it were reverted |
| `NOT_SENT` | FAILED | the platform could not be reached; the points written before it were reverted |
| `REVERT_FAILED` | UNKNOWN | some points were written, and could not be reverted |
| `NO_ANSWER` | UNKNOWN | no answer came, and reading back proves nothing |
| `NOT_READ_BACK` | UNKNOWN | the device accepted it, and could not be read afterwards |
| `CRASHED` | UNKNOWN | the worker died during the write, and reading back proves nothing |
| `RESTORED` | UNKNOWN | its ledger was restored from a backup, and it may have been executed since then |
| `STOPPED` | HOLD_ENDED | reverted before its time, because the worker was stopped |
| `LATER_COMMAND` | HOLD_SKIPPED | a later command wrote the points; they are not changed |
| `FORGIVEN` | HOLD_SKIPPED | an operator named the command in `hold.forgive`; the points are not changed |
| `HOLD_REVERT_FAILED` | HOLD_FAILED | alarm: a point could not be reverted yet; it is retried until it is |
"""
