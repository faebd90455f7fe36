package main

import (
	"encoding/json"
	"sort"
)

// sorted orders every list inside a JSON value and drops what is empty, so that two documents that
// mean the same set are equal as text.
func sorted(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			if item == nil || item == "" {
				delete(v, key)
				continue
			}
			v[key] = sorted(item)
		}
		return v
	case []any:
		for i := range v {
			v[i] = sorted(v[i])
		}
		sort.Slice(v, func(i, j int) bool { return text(v[i]) < text(v[j]) })
		return v
	default:
		return v
	}
}

func text(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(raw)
}
