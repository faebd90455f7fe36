package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// token is a join token: K10<ca hash>::<user>:<secret>, or the secret alone.
type token struct {
	caHash string
	secret string
}

var (
	fullToken   = regexp.MustCompile(`^K10([0-9a-f]{64})::(?:[a-z]+:)?(.+)$`)
	plainSecret = regexp.MustCompile(`^[A-Za-z0-9._~+/=-]{8,256}$`)
)

func parseToken(text string) (token, error) {
	text = strings.TrimSpace(text)
	parsed := token{secret: text}
	if strings.HasPrefix(text, "K10") && strings.Contains(text, "::") {
		match := fullToken.FindStringSubmatch(text)
		if match == nil {
			return token{}, errors.New("token starts like a full one but is not K10<64 hex digits>::<user>:<secret>")
		}
		parsed = token{caHash: match[1], secret: match[2]}
	}
	if parsed.secret != "" && !plainSecret.MatchString(parsed.secret) {
		return token{}, errors.New("the secret in the token has characters or a length that it must not have, wanted 8 to 256 of A-Z a-z 0-9 . _ ~ + / = -")
	}
	return parsed, nil
}

func configuredToken(given options) (token, error) {
	text := given.text("token")
	if file := given.text("token-file"); file != "" {
		if text != "" {
			return token{}, errors.New("both token and token-file are set, wanted one")
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return token{}, fmt.Errorf("token-file: %w", err)
		}
		text = string(content)
	}
	return parseToken(text)
}

// caHash is the hash in a full token: of the CA certificate as it lies on disk.
func caHash(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

func (t token) full(certificate []byte) string {
	return "K10" + caHash(certificate) + "::server:" + t.secret + "\n"
}

// serverToken settles the cluster's secret: the configured one, the one on disk, or a new one. An existing cluster
// keeps its secret; only `k3s token rotate` changes it.
func serverToken(cfg *config, certificate []byte) (token, error) {
	stored := token{}
	if content, err := os.ReadFile(serverTokenFile); err == nil {
		if stored, err = parseToken(string(content)); err != nil {
			return token{}, fmt.Errorf("%s: %w", serverTokenFile, err)
		}
	}
	chosen := cfg.token
	switch {
	case stored.secret == "" && chosen.caHash != "" && chosen.caHash != caHash(certificate):
		return token{}, errors.New("found a full token of another cluster, wanted the short form on the first server")
	case stored.secret != "" && chosen.secret != "" && subtle.ConstantTimeCompare([]byte(stored.secret), []byte(chosen.secret)) != 1:
		return token{}, fmt.Errorf("bootstrap data already found and encrypted with different token: the configured token is not the one in %s", serverTokenFile)
	case stored.secret != "":
		chosen = stored
	case chosen.secret == "":
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return token{}, err
		}
		chosen.secret = hex.EncodeToString(random)
	}
	return chosen, writeServerToken(chosen, certificate)
}

// writeServerToken leaves the token where users and the API server look for it.
func writeServerToken(t token, certificate []byte) error {
	if _, err := writeFile(serverTokenFile, []byte(t.full(certificate)), 0o600); err != nil {
		return err
	}
	for _, name := range []string{"/node-token", "/agent-token"} {
		if link, _ := os.Readlink(serverDir + name); link == "token" {
			continue
		}
		if err := os.Symlink("token", serverDir+name); err != nil {
			return err
		}
	}
	passwords := fmt.Sprintf("%s,node,node,%q\n", t.secret, joinGroup)
	_, err := writeFile(credDir+"/passwd", []byte(passwords), 0o600)
	return err
}

func runToken(args []string) error {
	if len(args) == 0 || args[0] != "rotate" {
		return errors.New("wanted: k3s token rotate --token <old> --new-token <new>")
	}
	values := map[string]string{}
	for rest := args[1:]; len(rest) > 0; {
		name, value, joined := strings.Cut(strings.TrimPrefix(rest[0], "--"), "=")
		rest = rest[1:]
		if !joined && len(rest) > 0 {
			value, rest = rest[0], rest[1:]
		}
		if name != "token" && name != "new-token" {
			return fmt.Errorf("flag %q is not in the stand-in's contract, wanted --token and --new-token", name)
		}
		values[name] = value
	}
	certificate, err := os.ReadFile(tlsDir + "/server-ca.crt")
	if err != nil {
		return fmt.Errorf("no cluster on this host: %w", err)
	}
	content, err := os.ReadFile(serverTokenFile)
	if err != nil {
		return err
	}
	stored, err := parseToken(string(content))
	if err != nil {
		return err
	}
	old, err := parseToken(values["token"])
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(old.secret), []byte(stored.secret)) != 1 {
		return errors.New("--token is not the token of this cluster")
	}
	next, err := parseToken(values["new-token"])
	if err != nil {
		return err
	}
	if next.secret == "" {
		return errors.New("--new-token is missing")
	}
	if err := writeServerToken(token{secret: next.secret}, certificate); err != nil {
		return err
	}
	fmt.Println("Token rotated, restart k3s with the new token")
	return nil
}
