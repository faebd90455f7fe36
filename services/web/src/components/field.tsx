import { type ComponentProps, type ReactNode, useId, useState } from 'react'

interface Props {
  label: string
  value: string
  change: (value: string) => void
  hint?: ReactNode
  error?: string | undefined
}

function describedBy(id: string, hint: unknown, error: string | undefined): string | undefined {
  const ids = [hint === undefined ? [] : [`${id}-hint`], error === undefined ? [] : [`${id}-error`]].flat()
  return ids.length > 0 ? ids.join(' ') : undefined
}

function Frame({ id, label, hint, error, children }: Omit<Props, 'value' | 'change'> & { id: string; children: ReactNode }) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children}
      {hint !== undefined && (
        <p id={`${id}-hint`} className="hint">
          {hint}
        </p>
      )}
      {error !== undefined && (
        <p id={`${id}-error`} className="field-error">
          {error}
        </p>
      )}
    </div>
  )
}

export function TextField({ label, value, change, hint, error, ...input }: Props & ComponentProps<'input'>) {
  const id = useId()
  return (
    <Frame id={id} label={label} hint={hint} error={error}>
      <input
        {...input}
        id={id}
        value={value}
        onChange={(event) => change(event.target.value)}
        aria-invalid={error !== undefined}
        aria-describedby={describedBy(id, hint, error)}
      />
    </Frame>
  )
}

export function TextArea({ label, value, change, hint, error, ...area }: Props & ComponentProps<'textarea'>) {
  const id = useId()
  return (
    <Frame id={id} label={label} hint={hint} error={error}>
      <textarea
        {...area}
        id={id}
        value={value}
        onChange={(event) => change(event.target.value)}
        aria-invalid={error !== undefined}
        aria-describedby={describedBy(id, hint, error)}
      />
    </Frame>
  )
}

/** With a button that shows what was typed: nobody has to type a long password twice. */
export function PasswordField({ label, value, change, hint, error, ...input }: Props & ComponentProps<'input'>) {
  const id = useId()
  const [shown, setShown] = useState(false)
  return (
    <Frame id={id} label={label} hint={hint} error={error}>
      <div className="with-button">
        <input
          {...input}
          id={id}
          type={shown ? 'text' : 'password'}
          value={value}
          onChange={(event) => change(event.target.value)}
          spellCheck={false}
          autoCapitalize="none"
          aria-invalid={error !== undefined}
          aria-describedby={describedBy(id, hint, error)}
        />
        <button type="button" className="quiet" aria-pressed={shown} aria-controls={id} onClick={() => setShown(!shown)}>
          Show<span className="visually-hidden"> {label.toLowerCase()}</span>
        </button>
      </div>
    </Frame>
  )
}
