-- The author's name is kept with the post: names do not change, and reading posts must not need auth.
CREATE TABLE posts (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    author_id   uuid NOT NULL,
    author_name text NOT NULL,
    title       text NOT NULL,
    content     text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- One for each of the two lists, in the order in which they are read.
CREATE INDEX posts_newest ON posts (created_at DESC, id DESC);
CREATE INDEX posts_of_author ON posts (author_id, created_at DESC, id DESC);
