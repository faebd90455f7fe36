package main

import (
	"bytes"
	"encoding/json"
)

// policyPrefix marks the policies that this program owns; all others are left alone.
const policyPrefix = "slipway-"

type statement struct {
	Effect   string   `json:"Effect"`
	Action   []string `json:"Action"`
	Resource []string `json:"Resource"`
}

type policy struct {
	Version   string      `json:"Version"`
	Statement []statement `json:"Statement"`
}

var (
	bucketActions = map[string][]string{
		"read":  {"s3:GetBucketLocation", "s3:ListBucket"},
		"write": {"s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"},
		"replicate": {
			"s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning",
			"s3:GetEncryptionConfiguration", "s3:GetReplicationConfiguration", "s3:ListBucket",
			"s3:ListBucketMultipartUploads", "s3:ListBucketVersions",
		},
	}
	objectActions = map[string][]string{
		"read": {"s3:GetObject"},
		"write": {
			"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject",
			"s3:ListMultipartUploadParts", "s3:PutObject",
		},
		"replicate": {
			"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectVersion",
			"s3:GetObjectVersionTagging", "s3:ListMultipartUploadParts", "s3:PutObject", "s3:ReplicateDelete",
			"s3:ReplicateObject", "s3:ReplicateTags",
		},
	}
)

// policyFor writes the policy of a user: its own buckets and nothing else. Deleting a version is not
// among the rights, so that in a versioned bucket a stolen key cannot destroy what was there.
func policyFor(u User) []byte {
	p := policy{Version: "2012-10-17", Statement: []statement{}}
	for _, g := range u.Grants {
		p.Statement = append(p.Statement,
			statement{"Allow", bucketActions[g.Access], []string{"arn:aws:s3:::" + g.Bucket}},
			statement{"Allow", objectActions[g.Access], []string{"arn:aws:s3:::" + g.Bucket + "/*"}})
	}
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings only: cannot fail
	}
	return raw
}

// samePolicy compares what is written, not how: the server keeps actions in an order of its own.
func samePolicy(a, b []byte) bool {
	left, okLeft := normalised(a)
	right, okRight := normalised(b)
	return okLeft && okRight && bytes.Equal(left, right)
}

func normalised(raw []byte) ([]byte, bool) {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, false
	}
	out, err := json.Marshal(sorted(value))
	return out, err == nil
}
