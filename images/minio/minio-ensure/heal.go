package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/minio/madmin-go/v3"
)

// Healed says what a check of all drives found. An object is damaged when a drive's part of it is away or not what was written.
type Healed struct {
	Objects  int     `json:"objects"` // versions that were read, those of the server's own settings too
	Damaged  int     `json:"damaged"`
	Restored int     `json:"restored"`
	Seconds  float64 `json:"seconds"`
}

// heal has the server read what every drive holds of every object, and write anew what is damaged.
//
// A read from a client does not: it answers rightly and queues the object, and the server then looks only whether the
// files are there, not what is in them.
func heal(ctx context.Context, server *Server, out io.Writer) error {
	began := time.Now()
	options := madmin.HealOpts{Recursive: true, ScanMode: madmin.HealDeepScan}
	started, _, err := server.admin.Heal(ctx, "", "", options, "", true, false)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var healed Healed
	left := ""
	for {
		_, status, err := server.admin.Heal(ctx, "", "", options, started.ClientToken, false, false)
		if err != nil {
			return fmt.Errorf("after %d objects: %w", healed.Objects, err)
		}
		for i := range status.Items {
			if name := healed.count(&status.Items[i]); name != "" {
				left = name
			}
		}
		if status.Summary == "finished" {
			break
		}
		if status.Summary == "stopped" {
			return fmt.Errorf("after %d objects: %s", healed.Objects, status.FailureDetail)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %d objects: %w", healed.Objects, ctx.Err())
		case <-time.After(time.Second):
		}
	}
	healed.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	line, err := json.Marshal(healed)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, string(line))
	if bad := healed.Damaged - healed.Restored; bad > 0 {
		return fmt.Errorf("%d of %d damaged objects are not whole again, such as %s; see which drives are away", bad, healed.Damaged, left)
	}
	return nil
}

// count adds what was done for one item, and returns the name of one that is not whole.
func (h *Healed) count(item *madmin.HealResultItem) string {
	if item.Type != madmin.HealItemObject {
		return ""
	}
	h.Objects++
	before, after := item.GetOnlineCounts()
	if before == item.DiskCount {
		return ""
	}
	h.Damaged++
	if after == item.DiskCount {
		h.Restored++
		return ""
	}
	return item.Bucket + "/" + item.Object
}
