package main

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed contract.yml
var contractText []byte

type optionSpec struct {
	Commands []string `yaml:"commands"`
	Type     string   `yaml:"type"`
	Default  string   `yaml:"default"`
}

var contract = func() (c struct {
	Options  map[string]optionSpec `yaml:"options"`
	Commands map[string]any        `yaml:"commands"`
}) {
	if err := yaml.Unmarshal(contractText, &c); err != nil {
		panic(err)
	}
	return c
}()

func contractCommands() []string { return slices.Sorted(maps.Keys(contract.Commands)) }

// options holds the values of every option that was given, as text.
type options map[string][]string

func (o options) text(name string) string {
	if values := o[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return contract.Options[name].Default
}

func (o options) flag(name string) bool { return o.text(name) == "true" }

// list also splits at commas, which k3s accepts in repeated options.
func (o options) list(name string) (values []string) {
	for _, value := range o[name] {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				values = append(values, part)
			}
		}
	}
	return values
}

// spec refuses what the contract does not list for the command.
func spec(command, name, where string) (optionSpec, error) {
	found, ok := contract.Options[name]
	if !ok || !slices.Contains(found.Commands, command) {
		return found, fmt.Errorf("%s: option %q of k3s %s is not in the stand-in's contract, wanted one of %s", where, name, command, strings.Join(namesFor(command), ", "))
	}
	return found, nil
}

func namesFor(command string) (names []string) {
	for name, option := range contract.Options {
		if slices.Contains(option.Commands, command) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func checkType(option optionSpec, name, where string, values []string) error {
	if option.Type == "bool" && len(values) == 1 && values[0] != "true" && values[0] != "false" {
		return fmt.Errorf("%s: %s is %q, wanted true or false", where, name, values[0])
	}
	if option.Type != "list" && len(values) > 1 {
		return fmt.Errorf("%s: %s has %d values, wanted one", where, name, len(values))
	}
	return nil
}

// readOptions merges config.yaml, config.yaml.d/*.yaml and the command line; the last one wins.
func readOptions(command string, args []string) (options, error) {
	given, file, err := parseFlags(command, args)
	if err != nil {
		return nil, err
	}
	merged := options{}
	dropIns, _ := filepath.Glob(file + ".d/*.y*ml")
	slices.Sort(dropIns)
	for _, path := range append([]string{file}, dropIns...) {
		if err := mergeFile(merged, command, path); err != nil {
			return nil, err
		}
	}
	maps.Copy(merged, given)
	return merged, nil
}

func mergeFile(merged options, command, path string) error {
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var document map[string]any
	if err := yaml.Unmarshal(content, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range slices.Sorted(maps.Keys(document)) {
		name, appends := strings.CutSuffix(key, "+")
		option, err := spec(command, name, path)
		if err != nil {
			return err
		}
		values, err := texts(document[key])
		if err != nil {
			return fmt.Errorf("%s: %s: %w", path, key, err)
		}
		if appends {
			values = append(slices.Clone(merged[name]), values...)
		}
		if err := checkType(option, name, path, values); err != nil {
			return err
		}
		merged[name] = values
	}
	return nil
}

func texts(value any) ([]string, error) {
	switch typed := value.(type) {
	case nil:
		return nil, fmt.Errorf("found nothing, wanted a value")
	case map[string]any:
		return nil, fmt.Errorf("found a mapping, wanted a value or a list")
	case []any:
		values := []string{}
		for _, item := range typed {
			values = append(values, fmt.Sprint(item))
		}
		return values, nil
	default:
		return []string{fmt.Sprint(typed)}, nil
	}
}

// parseFlags reads --name=value, --name value and --switch; it returns the configuration file beside them.
func parseFlags(command string, args []string) (options, string, error) {
	given, file := options{}, configFile
	for len(args) > 0 {
		word, isFlag := strings.CutPrefix(args[0], "--")
		args = args[1:]
		if !isFlag || word == "" {
			return nil, "", fmt.Errorf("found argument %q, wanted only flags, for example --node-name=server-1", word)
		}
		name, value, hasValue := strings.Cut(word, "=")
		option := optionSpec{Type: "string"}
		if name != "config" {
			var err error
			if option, err = spec(command, name, "command line"); err != nil {
				return nil, "", err
			}
		}
		switch {
		case hasValue:
		case option.Type == "bool":
			value = "true"
		case len(args) == 0:
			return nil, "", fmt.Errorf("flag --%s has no value", name)
		default:
			value, args = args[0], args[1:]
		}
		if name == "config" {
			file = value
			continue
		}
		given[name] = append(given[name], value)
		if err := checkType(option, name, "command line", given[name]); err != nil {
			return nil, "", err
		}
	}
	return given, file, nil
}
