package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7"
)

type reconciler struct {
	server  *Server
	secrets string
	check   bool
	out     io.Writer
}

func (r reconciler) ensure(ctx context.Context, wanted Declaration) error {
	for _, b := range wanted.Buckets {
		if err := r.bucket(ctx, b); err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
	}
	current := map[string]string{} // access key -> policy
	for _, u := range wanted.Users {
		keys, err := readKeys(r.secrets, u.Name)
		if err != nil {
			return fmt.Errorf("user %s: %w", u.Name, err)
		}
		if err := r.user(ctx, u, keys); err != nil {
			return fmt.Errorf("user %s: %w", u.Name, err)
		}
		current[keys.Access] = policyPrefix + u.Name
	}
	return r.prune(ctx, current)
}

func (r reconciler) say(changed bool, format string, arguments ...any) {
	word := "unchanged"
	if changed {
		word = "changed"
	}
	fmt.Fprintln(r.out, word, fmt.Sprintf(format, arguments...))
}

// apply runs a change unless only a forecast was asked for.
func (r reconciler) apply(change func() error) error {
	if r.check {
		return nil
	}
	return change()
}

func (r reconciler) bucket(ctx context.Context, b Bucket) error {
	exists, err := r.server.s3.BucketExists(ctx, b.Name)
	if err != nil {
		return err
	}
	if !exists {
		if err := r.apply(func() error { return r.server.s3.MakeBucket(ctx, b.Name, minio.MakeBucketOptions{}) }); err != nil {
			return err
		}
	}
	r.say(!exists, "bucket %s", b.Name)
	if !exists && r.check {
		r.say(b.Versioning, "bucket %s versioning %t", b.Name, b.Versioning)
		r.say(b.NoncurrentDays > 0, "bucket %s lifecycle", b.Name)
		r.say(b.Replication != nil, "bucket %s replication", b.Name)
		return nil
	}
	found, err := r.server.s3.GetBucketVersioning(ctx, b.Name)
	if err != nil {
		return err
	}
	differs := found.Enabled() != b.Versioning
	if differs {
		change := r.server.s3.SuspendVersioning
		if b.Versioning {
			change = r.server.s3.EnableVersioning
		}
		if err := r.apply(func() error { return change(ctx, b.Name) }); err != nil {
			return err
		}
	}
	r.say(differs, "bucket %s versioning %t", b.Name, b.Versioning)
	if err := r.lifecycle(ctx, b); err != nil {
		return err
	}
	return r.replication(ctx, b)
}

func (r reconciler) user(ctx context.Context, u User, keys Keys) error {
	name := policyPrefix + u.Name
	if err := r.policy(ctx, name, policyFor(u)); err != nil {
		return err
	}
	known, err := r.keysWork(ctx, keys)
	if err != nil {
		return err
	}
	if !known {
		if err := r.apply(func() error { return r.server.admin.AddUser(ctx, keys.Access, keys.Secret) }); err != nil {
			return err
		}
	}
	r.say(!known, "user %s key", u.Name)
	if !known && r.check {
		r.say(true, "user %s policy", u.Name)
		return nil
	}
	return r.attach(ctx, u.Name, keys.Access, name)
}

func (r reconciler) policy(ctx context.Context, name string, wanted []byte) error {
	policies, err := r.server.admin.ListCannedPolicies(ctx)
	if err != nil {
		return err
	}
	differs := !samePolicy(policies[name], wanted)
	if differs {
		if err := r.apply(func() error { return r.server.admin.AddCannedPolicy(ctx, name, wanted) }); err != nil {
			return err
		}
	}
	r.say(differs, "policy %s", name)
	return nil
}

// keysWork signs a request with the keys. The server never tells a secret key, so using it is the only way to
// see whether it is the right one.
func (r reconciler) keysWork(ctx context.Context, keys Keys) (bool, error) {
	client, err := r.server.signIn(keys)
	if err != nil {
		return false, err
	}
	_, err = client.ListBuckets(ctx)
	if err == nil {
		return true, nil
	}
	switch minio.ToErrorResponse(err).Code {
	case "AccessDenied": // signed in, but not allowed to list: the keys are right
		return true, nil
	case "InvalidAccessKeyId", "SignatureDoesNotMatch": // also what a disabled user gets
		return false, nil
	default:
		return false, err
	}
}

// attach leaves the user with exactly one policy, its own.
func (r reconciler) attach(ctx context.Context, user, accessKey, name string) error {
	info, err := r.server.admin.GetUserInfo(ctx, accessKey)
	if err != nil {
		return err
	}
	attached := splitPolicies(info.PolicyName)
	missing := !slices.Contains(attached, name)
	extra := slices.DeleteFunc(attached, func(p string) bool { return p == name })
	err = r.apply(func() error {
		if missing {
			request := madmin.PolicyAssociationReq{Policies: []string{name}, User: accessKey}
			if _, err := r.server.admin.AttachPolicy(ctx, request); err != nil {
				return err
			}
		}
		if len(extra) > 0 {
			request := madmin.PolicyAssociationReq{Policies: extra, User: accessKey}
			_, err := r.server.admin.DetachPolicy(ctx, request)
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.say(missing || len(extra) > 0, "user %s policy", user)
	return nil
}

// prune removes the keys that an application had before, and those of applications that are gone: a key is
// ours when it holds one of our policies.
func (r reconciler) prune(ctx context.Context, current map[string]string) error {
	users, err := r.server.admin.ListUsers(ctx)
	if err != nil {
		return err
	}
	stale := []string{}
	for accessKey, info := range users {
		if _, wanted := current[accessKey]; wanted {
			continue
		}
		if slices.ContainsFunc(splitPolicies(info.PolicyName), func(p string) bool { return strings.HasPrefix(p, policyPrefix) }) {
			stale = append(stale, accessKey)
		}
	}
	sort.Strings(stale)
	for _, accessKey := range stale {
		if err := r.apply(func() error { return r.server.admin.RemoveUser(ctx, accessKey) }); err != nil {
			return err
		}
		r.say(true, "user removed, its key is no longer declared (%s)", users[accessKey].PolicyName)
	}
	return nil
}

func splitPolicies(names string) []string {
	return strings.FieldsFunc(names, func(c rune) bool { return c == ',' })
}
