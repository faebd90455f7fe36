package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func object(key, etag string, minutes int) minio.ObjectInfo {
	return minio.ObjectInfo{Key: key, ETag: etag, Size: 1, LastModified: noon.Add(time.Duration(minutes) * time.Minute)}
}

func deleted(key string, minutes int) minio.ObjectInfo {
	return minio.ObjectInfo{Key: key, IsDeleteMarker: true, LastModified: noon.Add(time.Duration(minutes) * time.Minute)}
}

func listing(objects ...minio.ObjectInfo) <-chan minio.ObjectInfo {
	found := make(chan minio.ObjectInfo, len(objects))
	for _, one := range objects {
		found <- one
	}
	close(found)
	return found
}

func TestTwoListingsAreJoinedByName(t *testing.T) {
	type names struct{ there, here string }
	found := []names{}
	err := pairs(
		listing(object("a", "1", 0), object("b", "1", 0), object("d", "1", 0)),
		listing(object("b", "1", 0), object("c", "1", 0), object("e", "1", 0)),
		func(p pair) error {
			one := names{}
			if p.there != nil {
				one.there = p.there.Key
			}
			if p.here != nil {
				one.here = p.here.Key
			}
			found = append(found, one)
			return nil
		})
	wanted := []names{{"a", ""}, {"b", "b"}, {"", "c"}, {"d", ""}, {"", "e"}}
	if err != nil || !slices.Equal(found, wanted) {
		t.Errorf("found %v, %v, wanted %v", found, err, wanted)
	}
}

func TestAListingThatBreaksOffIsNoShortListing(t *testing.T) {
	broken := minio.ObjectInfo{Err: errors.New("connection reset")}
	whole := listing(object("a", "1", 0), object("b", "1", 0))
	if err := pairs(listing(object("a", "1", 0), broken), whole, func(pair) error { return nil }); err == nil {
		t.Error("found no error, wanted that of the listing")
	}
}

func TestWhatAPairNeeds(t *testing.T) {
	for name, one := range map[string]struct {
		there, here *minio.ObjectInfo
		wanted      verdict
	}{
		"not here":                   {ref(object("a", "1", 0)), nil, missing},
		"the same":                   {ref(object("a", "1", 0)), ref(object("a", "1", 9)), present},
		"older here":                 {ref(object("a", "2", 5)), ref(object("a", "1", 0)), missing},
		"overwritten here since":     {ref(object("a", "1", 0)), ref(object("a", "2", 5)), newer},
		"deleted here since":         {ref(object("a", "1", 0)), ref(deleted("a", 5)), newer},
		"written there after a mark": {ref(object("a", "1", 5)), ref(deleted("a", 0)), missing},
		"deleted there":              {ref(deleted("a", 5)), nil, nothing},
		"deleted there, here still":  {ref(deleted("a", 5)), ref(object("a", "1", 0)), onlyHere},
		"never there":                {nil, ref(object("a", "1", 0)), onlyHere},
	} {
		if found := judge(pair{one.there, one.here}); found != one.wanted {
			t.Errorf("%s: found %d, wanted %d", name, found, one.wanted)
		}
	}
}

func ref(o minio.ObjectInfo) *minio.ObjectInfo { return &o }

func TestOnlyTheETagOfAWholeObjectIsASum(t *testing.T) {
	for etag, wanted := range map[string]string{
		"d41d8cd98f00b204e9800998ecf8427e":   "1B2M2Y8AsgTpgAmY7PhCfg==",
		"d41d8cd98f00b204e9800998ecf8427e-2": "",
		"d41d8cd98f00b204":                   "",
		"":                                   "",
	} {
		if found := contentMD5(etag); found != wanted {
			t.Errorf("%s: found %q, wanted %q", etag, found, wanted)
		}
	}
}

func TestOneLineTellsOfTheFirstFailure(t *testing.T) {
	failures := failed{}
	failures.add("originals/a", errors.New("no space"))
	failures.add("originals/b", errors.New("no space"))
	wanted := "2 of 9 objects are not here, the first is originals/a: no space"
	if err := failures.problem(9); err == nil || err.Error() != wanted {
		t.Errorf("found %v, wanted %s", err, wanted)
	}
}
