import { type SubmitEvent, useState } from 'react'
import { BusyButton } from '../components/busy-button'
import { ErrorNotice } from '../components/error-notice'
import { PasswordField, TextField } from '../components/field'
import { View } from '../components/view'
import { useAction } from '../hooks/action'
import { useInvalidField } from '../hooks/invalid-field'
import { useServices, useSession } from '../hooks/services'
import { Link, navigate } from '../router'

/** `returnTo`: the address that the user wanted when it turned out that it needs an account. */
export function SignInView({ returnTo = '/' }: { returnTo?: string }) {
  const { session } = useServices()
  const state = useSession()
  const action = useAction()
  const [form, showInvalid] = useInvalidField()
  const [username, setUsername] = useState('')
  const [password, setPassword] = useState('')
  const [checked, setChecked] = useState(false)

  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    setChecked(true)
    if (username.trim() === '' || password === '') {
      showInvalid()
      return
    }
    if (await action.run(() => session.signIn(username.trim(), password))) navigate(returnTo)
  }

  const expired = state.status === 'signed-out' && state.expired
  return (
    <View title="Sign in" lead={expired ? <span role="alert">Your session has ended. Please sign in again.</span> : undefined}>
      <form ref={form} className="card narrow" noValidate onSubmit={(event) => void submit(event)}>
        <TextField
          label="Username"
          name="username"
          value={username}
          change={setUsername}
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          maxLength={256}
          error={checked && username.trim() === '' ? 'Please enter your username.' : undefined}
        />
        <PasswordField
          label="Password"
          name="password"
          value={password}
          change={setPassword}
          autoComplete="current-password"
          maxLength={256}
          error={checked && password === '' ? 'Please enter your password.' : undefined}
        />
        <ErrorNotice error={action.error} />
        <BusyButton type="submit" className="primary wide" busy={action.running}>
          {action.running ? 'Signing in…' : 'Sign in'}
        </BusyButton>
      </form>
      <p>
        No account yet? <Link href="/sign-up">Sign up</Link>
      </p>
    </View>
  )
}
