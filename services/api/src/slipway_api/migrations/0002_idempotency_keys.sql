-- Which post came of which Idempotency-Key. The content is not kept twice: an answer is given again only to the same
-- request, which brings it along, and the hash tells whether it is the same.
CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    -- Not a reference: the answer to a repeated request is the same after the post was deleted.
    post_id      uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);

-- For the removal of old ones.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
