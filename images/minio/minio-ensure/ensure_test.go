package main

import (
	"strings"
	"testing"
)

func TestDeclarationMistakesAreNamed(t *testing.T) {
	for text, wanted := range map[string]string{
		`{"buckets":[{"name":"Images"}]}`:             `buckets[0].name: found "Images"`,
		`{"buckets":[{"name":"a-b"},{"name":"a-b"}]}`: `"a-b" is declared twice`,
		`{"bukets":[]}`:               `unknown field "bukets"`,
		`{"users":[{"name":"../x"}]}`: `users[0].name: found "../x"`,
		`{"users":[{"name":"image","grants":[{"bucket":"images"}]}]}`:                          `wanted one of the declared buckets`,
		`{"buckets":[{"name":"abc"}],"users":[{"name":"i","grants":[{"bucket":"abc"}]}]}`:      `wanted "read", "write" or "replicate"`,
		`{"buckets":[{"name":"abc","noncurrent_days":-1}]}`:                                    `noncurrent_days: found -1`,
		`{"buckets":[{"name":"abc","noncurrent_days":7}]}`:                                     `buckets[0].versioning: found false`,
		`{"buckets":[{"name":"abc","versioning":true,"replication":{"endpoint":"there"}}]}`:    `buckets[0].replication.endpoint: found "there"`,
		`{"buckets":[{"name":"abc"}],"users":[{"name":"i"},{"name":"i"}]}`:                     `users[1].name: "i" is declared twice`,
		`{"buckets":[{"name":"images"}],"users":[{"name":"image","grants":[{"access":"w"}]}]}`: `users[0].grants[0].bucket`,
	} {
		if _, err := readDeclaration(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("%s: found %v, wanted %q", text, err, wanted)
		}
	}
}

func TestPolicyOpensOnlyTheGrantedBuckets(t *testing.T) {
	text := string(policyFor(User{Name: "image", Grants: []Grant{{"images", "write"}}}))
	for _, resource := range []string{`"arn:aws:s3:::images"`, `"arn:aws:s3:::images/*"`} {
		if !strings.Contains(text, resource) {
			t.Errorf("%s is missing in %s", resource, text)
		}
	}
	for _, never := range []string{"s3:*", `"*"`, `arn:aws:s3:::*`, "DeleteObjectVersion", "PutBucketPolicy", "admin:"} {
		if strings.Contains(text, never) {
			t.Errorf("%s must not be in %s", never, text)
		}
	}
}

func TestPoliciesAreComparedByMeaning(t *testing.T) {
	wanted := policyFor(User{Name: "image", Grants: []Grant{{"images", "read"}}})
	stored := []byte(`{"Statement":[{"Resource":["arn:aws:s3:::images/*"],"Effect":"Allow","Action":["s3:GetObject"]},
		{"Effect":"Allow","Action":["s3:ListBucket","s3:GetBucketLocation"],"Resource":["arn:aws:s3:::images"]}],
		"Version":"2012-10-17","ID":""}`)
	if !samePolicy(wanted, stored) {
		t.Error("the order of a list must not matter")
	}
	if samePolicy(wanted, policyFor(User{Name: "image", Grants: []Grant{{"images", "write"}}})) {
		t.Error("different rights must not be equal")
	}
	if samePolicy(nil, wanted) {
		t.Error("a missing policy equals nothing")
	}
}
