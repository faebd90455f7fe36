package main

import (
	"context"
	"slices"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/lifecycle"
	"github.com/minio/minio-go/v7/pkg/replication"
)

// ruleID marks the rules that this program owns in a bucket; all others are left alone.
const ruleID = "slipway"

// lifecycle lets overwritten and deleted objects end, and the mark of a deletion with the last of them.
func (r reconciler) lifecycle(ctx context.Context, b Bucket) error {
	found, err := r.server.s3.GetBucketLifecycle(ctx, b.Name)
	switch {
	case minio.ToErrorResponse(err).Code == "NoSuchLifecycleConfiguration":
		found = lifecycle.NewConfiguration()
	case err != nil:
		return err
	}
	isOurs := func(rule lifecycle.Rule) bool { return rule.ID == ruleID }
	at := slices.IndexFunc(found.Rules, isOurs)
	days := 0
	if at >= 0 {
		days = int(found.Rules[at].NoncurrentVersionExpiration.NoncurrentDays)
	}
	differs := days != b.NoncurrentDays
	if differs {
		found.Rules = slices.DeleteFunc(found.Rules, isOurs)
		if b.NoncurrentDays > 0 {
			found.Rules = append(found.Rules, lifecycle.Rule{
				ID:     ruleID,
				Status: "Enabled",
				NoncurrentVersionExpiration: lifecycle.NoncurrentVersionExpiration{
					NoncurrentDays: lifecycle.ExpirationDays(b.NoncurrentDays),
				},
				Expiration: lifecycle.Expiration{DeleteMarker: true},
			})
		}
		if err := r.apply(func() error { return r.server.s3.SetBucketLifecycle(ctx, b.Name, found) }); err != nil {
			return err
		}
	}
	r.say(differs, "bucket %s lifecycle", b.Name)
	return nil
}

// replication sends what is written to a bucket to another server, what was there before too. A deletion arrives as a
// mark: the versions there outlive it.
func (r reconciler) replication(ctx context.Context, b Bucket) error {
	targets, err := r.server.admin.ListRemoteTargets(ctx, b.Name, string(madmin.ReplicationService))
	if err != nil {
		return err
	}
	rules, err := r.server.s3.GetBucketReplication(ctx, b.Name)
	if err != nil && minio.ToErrorResponse(err).Code != "ReplicationConfigurationNotFoundError" {
		return err
	}
	if b.Replication == nil {
		return r.unreplicate(ctx, b, targets, rules)
	}
	arn, changed, err := r.target(ctx, b, targets)
	if err != nil {
		return err
	}
	isOurs := func(rule replication.Rule) bool { return rule.ID == ruleID }
	at := slices.IndexFunc(rules.Rules, isOurs)
	if at < 0 || rules.Rules[at].Destination.Bucket != arn || rules.Rules[at].Status != replication.Enabled {
		changed = true
		rules.Rules = append(slices.DeleteFunc(rules.Rules, isOurs), replicationRule(arn))
		if err := r.apply(func() error { return r.server.s3.SetBucketReplication(ctx, b.Name, rules) }); err != nil {
			return err
		}
	}
	r.say(changed, "bucket %s replication", b.Name)
	return nil
}

func replicationRule(arn string) replication.Rule {
	return replication.Rule{
		ID:                        ruleID,
		Status:                    replication.Enabled,
		Priority:                  1,
		DeleteMarkerReplication:   replication.DeleteMarkerReplication{Status: replication.Enabled},
		DeleteReplication:         replication.DeleteReplication{Status: replication.Disabled},
		ExistingObjectReplication: replication.ExistingObjectReplication{Status: replication.Enabled},
		SourceSelectionCriteria: replication.SourceSelectionCriteria{
			ReplicaModifications: replication.ReplicaModifications{Status: replication.Disabled},
		},
		Destination: replication.Destination{Bucket: arn},
	}
}

// target makes the other server known under an ARN; the server tries it at once.
func (r reconciler) target(ctx context.Context, b Bucket, targets []madmin.BucketTarget) (arn string, changed bool, err error) {
	keys, err := readKeys(r.secrets, b.Replication.Keys)
	if err != nil {
		return "", false, err
	}
	host, secure, err := splitEndpoint(b.Replication.Endpoint)
	if err != nil {
		return "", false, err
	}
	credentials := &madmin.Credentials{AccessKey: keys.Access, SecretKey: keys.Secret}
	for _, found := range targets {
		if found.Endpoint != host || found.Secure != secure || found.TargetBucket != b.Replication.Bucket {
			continue
		}
		// A new secret comes with a new access key.
		if found.Credentials != nil && found.Credentials.AccessKey == keys.Access {
			return found.Arn, false, nil
		}
		found.Credentials = credentials
		err := r.apply(func() error {
			_, err := r.server.admin.UpdateRemoteTarget(ctx, &found, madmin.CredentialsUpdateType)
			return err
		})
		return found.Arn, true, err
	}
	err = r.apply(func() error {
		arn, err = r.server.admin.SetRemoteTarget(ctx, b.Name, &madmin.BucketTarget{
			SourceBucket: b.Name,
			Endpoint:     host,
			Secure:       secure,
			TargetBucket: b.Replication.Bucket,
			Credentials:  credentials,
			API:          "s3v4",
			Type:         madmin.ReplicationService,
		})
		return err
	})
	return arn, true, err
}

func (r reconciler) unreplicate(ctx context.Context, b Bucket, targets []madmin.BucketTarget, rules replication.Config) error {
	ours := []string{}
	for _, rule := range rules.Rules {
		if rule.ID == ruleID {
			ours = append(ours, rule.Destination.Bucket)
		}
	}
	if len(ours) == 0 {
		r.say(false, "bucket %s replication", b.Name)
		return nil
	}
	rules.Rules = slices.DeleteFunc(rules.Rules, func(rule replication.Rule) bool { return rule.ID == ruleID })
	err := r.apply(func() error {
		change := func() error { return r.server.s3.SetBucketReplication(ctx, b.Name, rules) }
		if len(rules.Rules) == 0 {
			change = func() error { return r.server.s3.RemoveBucketReplication(ctx, b.Name) }
		}
		if err := change(); err != nil {
			return err
		}
		for _, target := range targets {
			if slices.Contains(ours, target.Arn) {
				if err := r.server.admin.RemoveRemoteTarget(ctx, b.Name, target.Arn); err != nil {
					return err
				}
			}
		}
		return nil
	})
	r.say(true, "bucket %s replication", b.Name)
	return err
}
