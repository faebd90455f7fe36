-- Equal bytes are kept once, in `blobs`, however many images have them. `variants` are what was made of them.
--
-- Expand only: the release before this one goes on working on this schema while pods are replaced. It knows `images`
-- alone, and takes an object for the property of one row. The triggers at the end keep its writes in step; a later
-- migration removes them together with images.object_key, which until then says the same as blobs.object_key (contract).

-- No row may come between the copy and the triggers. Reads go on.
LOCK TABLE images IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE blobs (
    sha256     text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    -- Never used for anything else, also after the blob is gone: who deletes an old object cannot hit a new one.
    object_key text NOT NULL CONSTRAINT blobs_object_key UNIQUE,
    size       bigint NOT NULL CHECK (size > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO blobs (sha256, object_key, size, created_at)
SELECT DISTINCT ON (sha256) sha256, object_key, size, created_at FROM images ORDER BY sha256, created_at, id;

-- The other objects with the same bytes are orphans from now on: the sweep removes them.
UPDATE images SET object_key = blobs.object_key FROM blobs
WHERE blobs.sha256 = images.sha256 AND blobs.object_key <> images.object_key;

ALTER TABLE images ADD CONSTRAINT images_blob FOREIGN KEY (sha256) REFERENCES blobs (sha256);
CREATE INDEX images_of_blob ON images (sha256);

-- Checking, hashing and storing; unknown for what was stored before.
ALTER TABLE images ADD COLUMN processing_ms integer CHECK (processing_ms >= 0);

CREATE TABLE variants (
    blob         text NOT NULL REFERENCES blobs (sha256) ON DELETE CASCADE,
    name         text NOT NULL,
    -- How variants are made, as a number: what an older release made is made anew.
    recipe       integer NOT NULL,
    object_key   text NOT NULL CONSTRAINT variants_object_key UNIQUE,
    sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size         bigint NOT NULL CHECK (size > 0),
    content_type text NOT NULL,
    milliseconds integer NOT NULL CHECK (milliseconds >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (blob, name, recipe)
);

-- An insert of the older release brings an object of its own: the row gets that of the blob, if there is one.
CREATE FUNCTION images_use_blob() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    shared text;
BEGIN
    LOOP
        SELECT object_key INTO shared FROM blobs WHERE sha256 = NEW.sha256 FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO blobs (sha256, object_key, size) VALUES (NEW.sha256, NEW.object_key, NEW.size)
        ON CONFLICT (sha256) DO NOTHING;
    END LOOP;
    NEW.object_key := shared;
    RETURN NEW;
END
$$;

-- A delete of the older release is followed by one of the object. While others need that object, the row stays: the
-- older release then answers 404, and the owner deletes it a moment later, when this release runs everywhere.
CREATE FUNCTION images_keep_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('slipway_image.knows_blobs', true) = 'yes' THEN
        RETURN OLD;
    END IF;
    PERFORM FROM blobs WHERE sha256 = OLD.sha256 FOR UPDATE;
    IF EXISTS (SELECT FROM images WHERE sha256 = OLD.sha256 AND id <> OLD.id) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END
$$;

CREATE FUNCTION images_drop_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM blobs WHERE sha256 = OLD.sha256
    AND NOT EXISTS (SELECT FROM images WHERE images.sha256 = OLD.sha256);
    RETURN NULL;
END
$$;

CREATE TRIGGER images_use_blob BEFORE INSERT ON images FOR EACH ROW EXECUTE FUNCTION images_use_blob();
CREATE TRIGGER images_keep_blob BEFORE DELETE ON images FOR EACH ROW EXECUTE FUNCTION images_keep_blob();
CREATE TRIGGER images_drop_blob AFTER DELETE ON images FOR EACH ROW
WHEN (current_setting('slipway_image.knows_blobs', true) IS DISTINCT FROM 'yes') EXECUTE FUNCTION images_drop_blob();
