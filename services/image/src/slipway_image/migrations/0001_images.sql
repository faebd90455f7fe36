-- object_key says where the original is, so that the layout of the bucket can change without touching names.
CREATE TABLE images (
    id           uuid PRIMARY KEY,
    owner_id     uuid NOT NULL,
    filename     text NOT NULL CONSTRAINT images_filename_key UNIQUE,
    object_key   text NOT NULL,
    sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size         bigint NOT NULL CHECK (size > 0),
    content_type text NOT NULL,
    width        integer NOT NULL CHECK (width > 0),
    height       integer NOT NULL CHECK (height > 0),
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX images_of_owner ON images (owner_id, created_at DESC, id DESC);
