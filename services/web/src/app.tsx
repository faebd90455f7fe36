import { ErrorNotice } from './components/error-notice'
import { Logo } from './components/logo'
import { Notifications } from './components/notify'
import { View } from './components/view'
import { useOnline } from './hooks/online'
import { useServices, useSession } from './hooks/services'
import { Link, usePath } from './router'
import { AccountView } from './views/account'
import { ImagesView } from './views/images'
import { PostView } from './views/post'
import { PostsView } from './views/posts'
import { SignInView } from './views/sign-in'
import { SignUpView } from './views/sign-up'

export function App() {
  const path = usePath()
  const online = useOnline()
  return (
    <Notifications>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header path={path} />
      <div role="status" className="banners">
        {!online && <p className="banner">You are offline. What you see may be old, and nothing can be saved.</p>}
      </div>
      {/* A view begins anew with its address. */}
      <main id="main" key={path} tabIndex={-1}>
        <Route path={path} />
      </main>
    </Notifications>
  )
}

function Route({ path }: { path: string }) {
  const session = useSession()
  const post = /^\/posts\/([^/]+)\/?$/.exec(path)?.[1]
  if (post !== undefined) return <PostView id={post} />
  switch (path.replace(/(.)\/$/, '$1')) {
    case '/':
      return <PostsView key={session.status} />
    case '/sign-in':
      return <SignInView />
    case '/sign-up':
      return <SignUpView />
    case '/images':
    case '/account':
      return <Private path={path} />
    default:
      return (
        <View title="Nothing here" lead="There is no page at this address.">
          <p>
            <Link href="/">To the posts</Link>
          </p>
        </View>
      )
  }
}

/** What needs a user: who is not signed in can do so right there, and then sees what was asked for. */
function Private({ path }: { path: string }) {
  const { session } = useServices()
  const state = useSession()
  if (state.status === 'signed-out') return <SignInView returnTo={path} />
  if (state.status === 'resuming') {
    return state.error === undefined ? (
      <p className="loading" role="status">
        Signing in…
      </p>
    ) : (
      <View title="Not signed in yet">
        <ErrorNotice error={state.error} retry={() => void session.resume()} />
      </View>
    )
  }
  return path.startsWith('/images') ? <ImagesView key={state.user.id} /> : <AccountView user={state.user} />
}

function Header({ path }: { path: string }) {
  const { status } = useSession()
  const link = (href: string, text: string) => (
    <li>
      <Link href={href} aria-current={path === href ? 'page' : undefined}>
        {text}
      </Link>
    </li>
  )
  return (
    <header className="site">
      <div className="bar">
        <Link href="/" className="brand">
          <Logo />
          slipway
        </Link>
        <nav aria-label="Main">
          <ul>
            {link('/', 'Posts')}
            {status !== 'signed-out' && link('/images', 'Images')}
            {status !== 'signed-out' && link('/account', 'Account')}
            {status === 'signed-out' && link('/sign-in', 'Sign in')}
          </ul>
        </nav>
      </div>
    </header>
  )
}
