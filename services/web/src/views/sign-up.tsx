import { type SubmitEvent, useState } from 'react'
import { fieldSentence } from '../api/sentences'
import { ApiError } from '../api/problem'
import { BusyButton } from '../components/busy-button'
import { ErrorNotice } from '../components/error-notice'
import { PasswordField, TextField } from '../components/field'
import { useNotify } from '../components/notify'
import { View } from '../components/view'
import { useAction } from '../hooks/action'
import { useInvalidField } from '../hooks/invalid-field'
import { useServices } from '../hooks/services'
import { Link, navigate } from '../router'
import { passwordMistake, usernameMistake } from '../rules'

export function SignUpView() {
  const { api, session } = useServices()
  const notify = useNotify()
  const action = useAction()
  const [form, showInvalid] = useInvalidField()
  const [username, setUsername] = useState('')
  const [password, setPassword] = useState('')
  const [checked, setChecked] = useState(false)

  const register = async () => {
    await api.register(username.trim(), password)
    try {
      await session.signIn(username.trim(), password)
      notify(`Welcome, ${username.trim().toLowerCase()}.`)
      navigate('/')
    } catch {
      // The account is there; why it could not be used yet will be said where it is tried again.
      notify('Your account is ready. Please sign in.')
      navigate('/sign-in')
    }
  }
  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    setChecked(true)
    const acceptable = usernameMistake(username) === undefined && passwordMistake(password) === undefined
    if (!acceptable || !(await action.run(register))) showInvalid()
  }

  const { error } = action
  const taken = error instanceof ApiError && error.code === 'username-taken' ? 'This username is taken. Please choose another one.' : undefined
  const fields = {
    username: (checked ? usernameMistake(username) : undefined) ?? taken ?? fieldSentence(error, 'username'),
    password: (checked ? passwordMistake(password) : undefined) ?? fieldSentence(error, 'password'),
  }
  const told = fields.username !== undefined || fields.password !== undefined
  return (
    <View title="Sign up">
      <form ref={form} className="card narrow" noValidate onSubmit={(event) => void submit(event)}>
        <TextField
          label="Username"
          name="username"
          value={username}
          change={(value) => {
            setUsername(value)
            action.clear()
          }}
          hint="3 to 32 of a–z, 0–9, dot, dash and underscore. Everybody can see it."
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          maxLength={256}
          error={fields.username}
        />
        <PasswordField
          label="Password"
          name="password"
          value={password}
          change={(value) => {
            setPassword(value)
            action.clear()
          }}
          hint="At least 8 characters. Some words that you can remember are fine."
          autoComplete="new-password"
          maxLength={256}
          error={fields.password}
        />
        {!told && <ErrorNotice error={error} />}
        <BusyButton type="submit" className="primary wide" busy={action.running}>
          {action.running ? 'Signing up…' : 'Sign up'}
        </BusyButton>
      </form>
      <p>
        Have an account? <Link href="/sign-in">Sign in</Link>
      </p>
    </View>
  )
}
