package main

import (
	"crypto/ed25519"
	"fmt"

	"github.com/spf13/cobra"

	"httpowerd/internal/daemon"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/audit"
)

func auditVerifyCommand(io stdio) *cobra.Command {
	var evidence audit.Evidence
	var keys []string
	cmd := &cobra.Command{
		Use:   "verify FILE…",
		Short: "Recompute the hash chain: exit 0, or name the first record that was altered, removed or reordered",
		Long: "Recompute the hash chain of audit files. Give rotated files together, the oldest first, and the chain is followed across them.\n\n" +
			"The signed checkpoints in it are checked, and those in the checkpoint file show whether the end was cut off. Without --key all must be of\n" +
			"one key, whosever it is.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			var err error
			if evidence.Keys, err = publicKeys(keys); err != nil {
				return &exitError{1, err.Error()}
			}
			report, err := audit.Verify(evidence, files...)
			if err != nil {
				return &exitError{1, err.Error()}
			}
			_, err = fmt.Fprintln(io.out, visible(report.String()))
			return err
		},
	}
	cmd.Flags().StringVar(&evidence.Checkpoints, "checkpoints", "", "the checkpoint `FILE` (default: the newest file's name with .checkpoints behind it, where that is there)")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "a public key in PEM, a `FILE`, that checkpoints must be signed with; may be given again")
	return cmd
}

func publicKeys(files []string) ([]ed25519.PublicKey, error) {
	var out []ed25519.PublicKey
	for _, f := range files {
		key, err := audit.ReadPublicKey(f)
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

func auditKeyCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the public key that checkpoints are signed with; the key is made where there is none",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file, faults := policy.Load(flags.source())
			if len(faults) > 0 {
				return faults
			}
			text, mark, err := audit.PublicKey(daemon.CheckpointConfig(file.Settings()).Key)
			if err != nil {
				return err
			}
			fmt.Fprintln(io.err, mark)
			_, err = io.out.Write(text)
			return err
		},
	}
	flags.addConfig(cmd.Flags())
	return cmd
}
