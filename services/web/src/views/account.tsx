import { type SubmitEvent, useState } from 'react'
import { ApiError } from '../api/problem'
import { fieldSentence } from '../api/sentences'
import { BusyButton } from '../components/busy-button'
import { ErrorNotice } from '../components/error-notice'
import { PasswordField } from '../components/field'
import { useNotify } from '../components/notify'
import { View } from '../components/view'
import { useAction } from '../hooks/action'
import { useInvalidField } from '../hooks/invalid-field'
import { useServices } from '../hooks/services'
import { navigate } from '../router'
import { passwordMistake } from '../rules'
import type { User } from '../session/claims'

export function AccountView({ user }: { user: User }) {
  return (
    <View title="Account" lead={`You are signed in as ${user.username}.`}>
      <PasswordForm username={user.username} />
      <SignOut />
    </View>
  )
}

function PasswordForm({ username }: { username: string }) {
  const { api } = useServices()
  const notify = useNotify()
  const action = useAction()
  const [form, showInvalid] = useInvalidField()
  const [current, setCurrent] = useState('')
  const [next, setNext] = useState('')
  const [checked, setChecked] = useState(false)

  const write = (set: (value: string) => void) => (value: string) => {
    set(value)
    action.clear()
  }
  const change = async () => {
    await api.changePassword(current, next)
    setCurrent('')
    setNext('')
    setChecked(false)
    notify('Password changed. Everywhere else you have been signed out.')
  }
  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    setChecked(true)
    if (current === '' || passwordMistake(next) !== undefined || !(await action.run(change))) showInvalid()
  }

  const { error } = action
  const wrong = error instanceof ApiError && error.code === 'invalid-credentials' ? 'This is not your current password.' : undefined
  const fields = {
    current: (checked && current === '' ? 'Please enter your current password.' : undefined) ?? wrong,
    next: (checked ? passwordMistake(next) : undefined) ?? fieldSentence(error, 'new_password'),
  }
  return (
    <form ref={form} className="card narrow" noValidate aria-labelledby="password-heading" onSubmit={(event) => void submit(event)}>
      <h2 id="password-heading">Change password</h2>
      {/* For password managers: whose password this is. */}
      <input className="visually-hidden" type="text" autoComplete="username" value={username} readOnly tabIndex={-1} aria-hidden="true" />
      <PasswordField
        label="Current password"
        name="current-password"
        value={current}
        change={write(setCurrent)}
        autoComplete="current-password"
        maxLength={256}
        error={fields.current}
      />
      <PasswordField
        label="New password"
        name="new-password"
        value={next}
        change={write(setNext)}
        hint="At least 8 characters."
        autoComplete="new-password"
        maxLength={256}
        error={fields.next}
      />
      {fields.current === undefined && fields.next === undefined && <ErrorNotice error={error} />}
      <BusyButton type="submit" className="primary" busy={action.running}>
        {action.running ? 'Changing…' : 'Change password'}
      </BusyButton>
    </form>
  )
}

function SignOut() {
  const { session } = useServices()
  const notify = useNotify()
  const action = useAction()
  const leave = async () => {
    await session.signOut()
    notify('You are signed out.')
    navigate('/')
  }
  return (
    <section className="card narrow" aria-labelledby="sign-out-heading">
      <h2 id="sign-out-heading">Sign out</h2>
      <p>Ends your session in this browser, in all of its tabs.</p>
      <ErrorNotice error={action.error} />
      <BusyButton type="button" className="quiet" busy={action.running} onClick={() => void action.run(leave)}>
        {action.running ? 'Signing out…' : 'Sign out'}
      </BusyButton>
    </section>
  )
}
