package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	fillWorkers = 8
	fillTries   = 3
)

// Filled says what became of a bucket. Versions that were overwritten, and objects that were deleted, stay where they are.
type Filled struct {
	Bucket  string  `json:"bucket"`
	Copied  int     `json:"copied"`
	Bytes   int64   `json:"bytes"`
	Present int     `json:"present"` // the same object was here already
	Newer   int     `json:"newer"`   // overwritten or deleted here since
	Only    int     `json:"only"`    // here and not there
	Seconds float64 `json:"seconds"`
}

// fill copies what the replicas of the declared buckets hold into these. It may be broken off at any time and run again.
func fill(ctx context.Context, server *Server, caFile, secrets string, wanted Declaration, out io.Writer) error {
	for _, b := range wanted.Buckets {
		if b.Replication == nil {
			continue
		}
		keys, err := readKeys(secrets, b.Replication.Keys)
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
		replica, err := connect(b.Replication.Endpoint, caFile, keys)
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
		from := site{minio.Core{Client: replica.s3}, b.Replication.Bucket}
		filled, err := filler{from: from, to: site{minio.Core{Client: server.s3}, b.Name}}.run(ctx)
		if err != nil {
			return fmt.Errorf("bucket %s from %s: %w", b.Name, b.Replication.Endpoint, err)
		}
		line, err := json.Marshal(filled)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(line))
	}
	return nil
}

// site is one bucket of one server.
type site struct {
	core   minio.Core
	bucket string
}

// latest lists the newest version of every object, marks of deletion too, in the order of their names.
func (s site) latest(ctx context.Context) <-chan minio.ObjectInfo {
	found := make(chan minio.ObjectInfo)
	go func() {
		defer close(found)
		for object := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
			if object.Err == nil && !object.IsLatest {
				continue
			}
			select {
			case found <- object:
			case <-ctx.Done():
				return
			}
		}
	}()
	return found
}

// pair is one object on both sides; nil where there is none.
type pair struct{ there, here *minio.ObjectInfo }

// pairs joins two listings by name. Neither is ever held in memory.
func pairs(there, here <-chan minio.ObjectInfo, visit func(pair) error) error {
	next := func(listing <-chan minio.ObjectInfo) (*minio.ObjectInfo, error) {
		object, more := <-listing
		if !more {
			return nil, nil
		}
		return &object, object.Err
	}
	left, err := next(there)
	if err != nil {
		return fmt.Errorf("listing the replica: %w", err)
	}
	right, err := next(here)
	if err != nil {
		return fmt.Errorf("listing: %w", err)
	}
	for left != nil || right != nil {
		one := pair{left, right}
		switch {
		case left == nil || (right != nil && right.Key < left.Key):
			one.there = nil
		case right == nil || left.Key < right.Key:
			one.here = nil
		}
		if err := visit(one); err != nil {
			return err
		}
		if one.there != nil {
			if left, err = next(there); err != nil {
				return fmt.Errorf("listing the replica: %w", err)
			}
		}
		if one.here != nil {
			if right, err = next(here); err != nil {
				return fmt.Errorf("listing: %w", err)
			}
		}
	}
	return nil
}

type verdict int

const (
	nothing verdict = iota // there is none there, or it is deleted there
	onlyHere
	present
	newer
	missing
)

// judge says what a pair needs. The newer one of two that differ counts, a deletion included.
func judge(p pair) verdict {
	here := p.here != nil && !p.here.IsDeleteMarker
	switch {
	case p.there == nil || p.there.IsDeleteMarker:
		if here {
			return onlyHere
		}
		return nothing
	case here && p.here.ETag == p.there.ETag && p.here.Size == p.there.Size:
		return present
	case p.here != nil && p.here.LastModified.After(p.there.LastModified):
		return newer
	}
	return missing
}

type filler struct{ from, to site }

func (f filler) run(ctx context.Context) (Filled, error) {
	began := time.Now()
	result := Filled{Bucket: f.to.bucket}
	jobs, failures := make(chan minio.ObjectInfo), failed{}
	var workers sync.WaitGroup
	for range fillWorkers {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for object := range jobs {
				if err := f.copy(ctx, object); err != nil {
					failures.add(object.Key, err)
				}
			}
		}()
	}
	err := f.compare(ctx, func(object minio.ObjectInfo, found verdict) {
		switch found {
		case missing:
			result.Copied++
			result.Bytes += object.Size
			jobs <- object
		case present:
			result.Present++
		case newer:
			result.Newer++
		case onlyHere:
			result.Only++
		case nothing:
		}
	})
	close(jobs)
	workers.Wait()
	if err == nil {
		err = failures.problem(result.Copied)
	}
	if err == nil {
		err = f.verify(ctx)
	}
	result.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	return result, err
}

func (f filler) compare(ctx context.Context, visit func(minio.ObjectInfo, verdict)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return pairs(f.from.latest(ctx), f.to.latest(ctx), func(p pair) error {
		object := minio.ObjectInfo{}
		if p.there != nil {
			object = *p.there
		}
		visit(object, judge(p))
		return ctx.Err()
	})
}

// verify looks at both sides once more: what was copied is what is listed here now.
func (f filler) verify(ctx context.Context) error {
	failures, seen := failed{}, 0
	err := f.compare(ctx, func(object minio.ObjectInfo, found verdict) {
		seen++
		if found == missing {
			failures.add(object.Key, errors.New("it is not here although it was copied"))
		}
	})
	if err != nil {
		return err
	}
	return failures.problem(seen)
}

func (f filler) copy(ctx context.Context, object minio.ObjectInfo) error {
	var err error
	for try := range fillTries {
		if err = f.copyOnce(ctx, object); err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(try+1) * time.Second):
		case <-ctx.Done():
		}
	}
	return err
}

// copyOnce streams one version. It arrives as a replica, with the version, time and ETag that it has there: the server
// does not send it back, and the second site gains no versions.
func (f filler) copyOnce(ctx context.Context, object minio.ObjectInfo) error {
	body, found, _, err := f.from.core.GetObject(ctx, f.from.bucket, object.Key, minio.GetObjectOptions{VersionID: object.VersionID})
	if err != nil {
		return err
	}
	defer body.Close()
	options := minio.PutObjectOptions{
		UserMetadata:       found.UserMetadata,
		ContentType:        found.ContentType,
		ContentEncoding:    found.Metadata.Get("Content-Encoding"),
		ContentDisposition: found.Metadata.Get("Content-Disposition"),
		ContentLanguage:    found.Metadata.Get("Content-Language"),
		CacheControl:       found.Metadata.Get("Cache-Control"),
		Expires:            found.Expires,
		Internal: minio.AdvancedPutOptions{
			SourceVersionID:    object.VersionID,
			SourceETag:         object.ETag,
			SourceMTime:        object.LastModified,
			ReplicationStatus:  minio.ReplicationStatusReplica,
			ReplicationRequest: true,
		},
	}
	if found.UserTagCount > 0 {
		tags, err := f.from.core.GetObjectTagging(ctx, f.from.bucket, object.Key, minio.GetObjectTaggingOptions{VersionID: object.VersionID})
		if err != nil {
			return err
		}
		options.UserTags = tags.ToMap()
	}
	_, err = f.to.core.PutObject(ctx, f.to.bucket, object.Key, body, found.Size, contentMD5(object.ETag), "", options)
	if minio.ToErrorResponse(err).Code == "PreconditionFailed" { // this version is here: an earlier try got through
		return nil
	}
	return err
}

// contentMD5 lets the server compare what arrives with what was once written, where the ETag tells that: not of an object
// that was written in parts.
func contentMD5(etag string) string {
	sum, err := hex.DecodeString(etag)
	if err != nil || len(sum) != 16 {
		return ""
	}
	return base64.StdEncoding.EncodeToString(sum)
}

// failed collects what went wrong; one line tells of the first.
type failed struct {
	mutex sync.Mutex
	count int
	first string
}

func (f *failed) add(key string, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.count++
	if f.first == "" {
		f.first = fmt.Sprintf("%s: %v", key, err)
	}
}

func (f *failed) problem(of int) error {
	if f.count == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d objects are not here, the first is %s", f.count, of, f.first)
}
