import { useCallback, useRef, useState } from 'react'
import type { Post } from '../api/types'
import { LoadMore } from '../components/load-more'
import { focusHeading, View } from '../components/view'
import { useNotify } from '../components/notify'
import { type Pages, usePages } from '../hooks/pages'
import { useServices, useSession } from '../hooks/services'
import { Link } from '../router'
import { Composer } from './composer'
import { PostCard } from './post-card'

const keyOf = (post: Post) => post.id

export function PostsView() {
  const { api } = useServices()
  const state = useSession()
  const [whose, setWhose] = useState<'all' | 'mine'>('all')
  const load = useCallback((cursor: string | null, signal: AbortSignal) => api.posts(whose, cursor, signal), [api, whose])
  const pages = usePages(load, keyOf)
  const notify = useNotify()
  const user = state.status === 'signed-in' ? state.user : undefined

  const choose = (choice: 'all' | 'mine') => (
    <button type="button" className="tab" aria-pressed={whose === choice} onClick={() => setWhose(choice)}>
      {choice === 'all' ? 'Everybody’s' : 'Mine'}
    </button>
  )
  return (
    <View title="Posts" lead={state.status === 'signed-out' ? <Invitation expired={state.expired} /> : undefined}>
      {user && (
        <Composer
          userId={user.id}
          done={(post) => {
            pages.prepend(post)
            notify('Post published.')
          }}
        />
      )}
      {user && (
        <div className="tabs" role="group" aria-label="Whose posts">
          {choose('all')}
          {choose('mine')}
        </div>
      )}
      <PostList key={whose} pages={pages} userId={user?.id} />
    </View>
  )
}

function Invitation({ expired }: { expired: boolean }) {
  if (expired) {
    return (
      <>
        <span role="alert">Your session has ended.</span> <Link href="/sign-in">Sign in</Link> again to go on.
      </>
    )
  }
  return (
    <>
      <Link href="/sign-up">Sign up</Link> or <Link href="/sign-in">sign in</Link> to write one, and to keep images here.
    </>
  )
}

function PostList({ pages, userId }: { pages: Pages<Post>; userId: string | undefined }) {
  const list = useRef<HTMLUListElement>(null)
  const notify = useNotify()
  const deleted = (post: Post) => {
    pages.remove(post)
    notify('Post deleted.')
    focusHeading()
  }
  const empty = pages.items.length === 0 && !pages.loading && pages.error === undefined
  return (
    <>
      {empty && <p className="empty">No posts yet.</p>}
      <ul ref={list} className="posts">
        {pages.items.map((post) => (
          <li key={post.id}>
            <PostCard post={post} level={2} {...(post.author.id === userId ? { deleted: () => deleted(post) } : {})} />
          </li>
        ))}
      </ul>
      <LoadMore pages={pages} what="posts" list={list} />
    </>
  )
}
